"""Programs as other tools and people read them: Graphviz, Netron, JSON, differences."""
