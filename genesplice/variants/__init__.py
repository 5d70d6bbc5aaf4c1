"""Variants: VCF or table in, scores out.

alleles ─► likelihood (masked bases) ─► scan
        └► levels (expression) ───────► design
   vcf ──► annotate (both scores) ────► classes, measured
"""
