"""`python -m crypto_assets` is `crypto-assets`."""

from crypto_assets.cli import main

main()
