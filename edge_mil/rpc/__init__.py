"""The wire and the values: `codec` turns one into the other, `status` an error into a code."""
