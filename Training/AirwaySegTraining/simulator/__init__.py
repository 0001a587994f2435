"""The simulated chest: patient, airways, vessels, disease, and the scanner that sees them."""
