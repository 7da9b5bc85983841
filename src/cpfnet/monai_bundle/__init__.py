"""What leaves the house: Models as other people's tools expect them."""
