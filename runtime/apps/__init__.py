"""Working examples around a bundle for those who have never heard of vitdeploy: Python, Node, the web and C++."""
