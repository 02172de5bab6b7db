"""Carrying scopes from vault to vault: exports, and importing them."""
