"""The project's numbers, measured in laboratories: `make bench`.

Each module measures what belongs together and returns rows; __main__.py runs them and prints the
table. Nothing here is collected by pytest, and nothing in the product knows of it.
"""
