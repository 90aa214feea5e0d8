//! The path index: a segment trie over interned literals, with exact precedence.
