"""The cases: descriptions and the numbers made from them, the authors' own programs, a hundred steps on real text."""
