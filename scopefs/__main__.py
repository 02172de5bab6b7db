"""`python -m scopefs` is the same program as `scopefs`."""

from scopefs.cli import main

if __name__ == "__main__":
    main()
