"""Variants: VCF in, VCF out, and what a model says of every change.

alleles ─► checks ─┬─► likelihood (masked bases) ──┬─► annotate ─► vcf, table
                   └─► levels (expression) ────────┘
"""
