"""`python -m entropy_mechanism`."""

from entropy_mechanism.cli import main

if __name__ == "__main__":
    main()
