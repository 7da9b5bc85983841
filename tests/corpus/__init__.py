"""Files that are wrong on purpose, made on the spot: each is read rightly or refused by name, and does no harm.

``python -m tests.corpus`` tries them all and prints the count by format and outcome; `tests.corpus.test_corpus`
tries a part.

    mutant.py   what a mutant is; harm done to the bytes of any file
    judge.py    what is done with a mutant, and what counts as right
    run.py      each in a process of its own, watched
    images.py  volumes.py  dicom.py  settings.py  weights.py  places.py    the mutants
"""
