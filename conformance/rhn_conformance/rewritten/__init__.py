"""The reference with changed source text: deliberately broken implementations (mutants), and decimal arithmetic."""
