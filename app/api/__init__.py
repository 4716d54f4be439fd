"""Routes and their schemas, one file per noun."""
