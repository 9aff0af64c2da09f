"""Speed measured against ordinary loops: `make bench`."""
