"""`python -m cpfnet` is `cpfnet`."""

from cpfnet.cli.app import main

if __name__ == "__main__":
    main()
