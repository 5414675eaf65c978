"""Base images without a registry."""

# What a name lookup needs where the container has a loopback and nothing else; Docker writes these lines for each one.
HOSTS = "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n"
