"""A prediction against a reference: the metrics of the field and the protocols that use them."""
