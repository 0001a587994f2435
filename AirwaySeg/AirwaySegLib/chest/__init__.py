"""What is found in a chest CT without a network: body, lungs, trachea, and the search region."""
