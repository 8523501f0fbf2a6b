"""What a service costs whom: price lists by version, department and payer, discounts, packages.

`quoting.py` puts them together: a package that was bought comes first, then the price for who pays, the
department's before the centre's, then the best discount that fits.
"""
