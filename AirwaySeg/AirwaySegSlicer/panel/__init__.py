"""The panel's sections: widgets and what they call."""
