"""Facts about the machine of a result, and advice about its speed."""
