"""The mesh: who is who, who is trusted, and the exchange of offers."""
