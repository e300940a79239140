"""What a user could do instead of vitdeploy, as bundles that one bench can run beside ours."""
