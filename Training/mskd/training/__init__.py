"""Training of a network alone, or of a student under a teacher."""
