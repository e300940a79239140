"""What a result was measured on, and advice about what slows it down."""
