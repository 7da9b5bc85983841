"""How accurate the networks are, measured again by one command a data set: see README.md beside this file."""
