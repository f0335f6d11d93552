"""The reference with its text changed: deliberately broken implementations, and decimal arithmetic."""
