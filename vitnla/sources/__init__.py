"""Source models: trained models, converted to the canonical form."""
