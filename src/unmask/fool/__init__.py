"""Can it be fooled? Attacks on classifiers, and audits that re-verify them."""
