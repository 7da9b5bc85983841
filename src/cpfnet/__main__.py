"""`python -m cpfnet` is `cpfnet`."""

from cpfnet.cli import main

if __name__ == "__main__":
    main()
