"""The whole road once, on a phantom made by code and on a public brain template."""
