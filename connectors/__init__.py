"""The data contract, and how records enter and leave; knows no model."""
