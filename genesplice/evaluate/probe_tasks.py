"""Places in a genome whose annotation a linear probe has to tell, and the bases around them.

A site is a base that is read on one strand. Its label comes from the annotation, its input is
sequence only. Tasks share sites where they can, so that an encoder reads fewer windows.

=============  =====================================================================================
`coding`       a base of a reading frame, or of no gene; read on either strand
`strand`       a coding base, read in its gene's sense or against it
`frame`        codon position (1 to 3) of a coding base, read in sense
`start_codon`  first base of an annotated start codon, or of another ATG, GTG or TTG: half of those
               are codons inside of genes, in frame, half lie anywhere on either strand. Both
               labels have the same share of ATG, GTG and TTG.
`promoter`     a base 20 to 100 bp before an operon's first gene, in no gene, read in that gene's
               sense; or (half and half) a coding base or one of no gene and none of the 300 bp
               before such a gene, read on either strand
`operon`       first base of the first protein gene of an operon, or of another; in sense
`rna`          a base of a tRNA or rRNA gene, or of a protein's; in sense. (Copies of rRNA operons
               are all but identical, and lie in all folds.)
`replichore`   the strand that is read is the leading or the lagging one: leading is + from the
               origin of replication to the terminus, - from there on
=============  =====================================================================================

Source: the downstream tasks of the Nucleotide Transformer (Dalla-Torre et al. 2024), as far as
the annotation of a bacterium gives them; composition of the leading strand: Lobry 1996.
"""

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float, Int64, UInt8
from torch import Tensor

from genesplice.config.model import REGION_BP
from genesplice.data.bundle import Bundle
from genesplice.data.features import kmer_features, one_hot_features, site_windows
from genesplice.data.genome import Genome
from genesplice.data.splits import first_of_operon
from genesplice.data.windows import annotation_track
from genesplice.errors import InputError
from genesplice.evaluate.strata import (
    PROMOTER_BP,
    RNA_BIOTYPES,
    region_masks,
    upstream_mask,
)
from genesplice.model.sequence import EncoderOutput, SequenceEncoder
from genesplice.runtime import side_by_side

KMER_WINDOW_BP, ONE_HOT_WINDOW_BP = 256, 64
BINS_BP = 128
CODON_BP = 3
BASES_BP = (24, 126)


def reference_features(
    genome: Genome, sites: pd.DataFrame
) -> dict[str, Float[np.ndarray, "sites _"]]:
    """`kmers`: 4-mers of 256 bp around each site; `one_hot`: 64 bp around it. On its strand."""
    return {
        "kmers": kmer_features(site_windows(genome, sites, KMER_WINDOW_BP)),
        "one_hot": one_hot_features(site_windows(genome, sites, ONE_HOT_WINDOW_BP)),
    }


@torch.no_grad()
def encoder_features(
    encoder: SequenceEncoder,
    bundle: Bundle,
    sites: pd.DataFrame,
    *,
    window_bp: int = 1024,
    batch_bp: int = 65_536,
) -> Float[np.ndarray, "sites features"]:
    """Vectors of a frozen encoder near each site, read on the site's strand.

    Every site gets a window of its own with the site in its middle, so that it has the same place
    in its bin everywhere. From left to right:

    - the mean over the bins within 128 bp, and the bin that the site begins;
    - where the encoder works at 1 bp, the site's own base, and six means over bases: within 24 and
      within 126 bp, those 0, 1 and 2 beyond a multiple of three from the site. Their plain mean is
      a linear function of them; alone it would blur the reading frame.

    (Ranges chosen by left-out blocks of the training folds, with a quick encoder of E. coli; they
    are no wider than what `reference_features` count k-mers in.) No annotation channel is used. The
    encoder comes back in the mode that it was in; sites that tasks share are read once.

    Parameters
    ----------
    window_bp
        Context and cost grow with it.
    batch_bp
        Bases in a batch of windows.

    Raises
    ------
    InputError
        If `window_bp` is not a multiple of 1,024.
    """
    if window_bp < REGION_BP or window_bp % REGION_BP:
        raise InputError(f"window_bp {window_bp}", f"a multiple of {REGION_BP} bp")
    keys = ["contig", "position", "strand"]
    number = sites.groupby(keys, sort=False).ngroup().to_numpy()
    unique = sites[keys].drop_duplicates()
    device = next(encoder.parameters()).device
    was_training = encoder.training
    encoder.eval()
    size = max(1, batch_bp // window_bp)

    def read(start: int) -> Float[np.ndarray, "batch features"]:
        windows = site_windows(bundle.genome, unique[start : start + size], window_bp)
        with_bases = encoder.base_width > 0
        output = encoder(torch.from_numpy(windows).to(device), with_bases=with_bases)
        return _near_middle(output, encoder.bin_bp).cpu().double().numpy()

    parts = side_by_side(read, range(0, len(unique), size), device)
    encoder.train(was_training)
    width = 2 * encoder.width + (1 + CODON_BP * len(BASES_BP)) * encoder.base_width
    return np.concatenate([np.empty((0, width)), *parts])[number]


def _near_middle(output: EncoderOutput, bin_bp: int) -> Float[Tensor, "batch features"]:
    """The middle of a window of even length, at each resolution."""
    bins, bases = output.bins, output.bases
    middle, reach = bins.shape[1] // 2, max(1, BINS_BP // bin_bp)
    found = [bins[:, middle - reach : middle + reach].mean(1), bins[:, middle]]
    if bases is not None:
        middle = bases.shape[1] // 2
        found.append(bases[:, middle])
        for reach in BASES_BP:
            codons = bases[:, middle - reach : middle + reach].unflatten(1, (-1, CODON_BP))
            found.append(codons.mean(1).flatten(1))
    return torch.cat(found, 1)


TASKS = {
    "coding": ("coding", "intergenic"),
    "strand": ("sense", "antisense"),
    "frame": ("1", "2", "3"),
    "start_codon": ("start", "other"),
    "promoter": ("promoter", "other"),
    "operon": ("first", "inner"),
    "rna": ("rna", "protein"),
    "replichore": ("leading", "lagging"),
}
"""Labels of each task."""
SITE_COLUMNS = ("task", "label", "contig", "position", "strand", "block", "fold")
REPLICATION = {"NC_000913.3": (3_925_743, 1_590_763)}
"""First base of the origin of replication and middle of the terminus by contig, 0-based.

Source: RefSeq NC_000913.3 (E. coli K-12 MG1655): `origin_of_replication` oriC, 3,925,744 to
3,925,975; `recombination_feature` dif, 1,590,750 to 1,590,777.
"""
NO_PROMOTER_BP = 300
START_CODONS = (14, 46, 62)
"""ATG, GTG and TTG as numbers of base 4."""


Sites = Int64[np.ndarray, " _"]
"""Twice the index into `Genome.tokens`, plus 1 where the - strand is read."""


def make_probe_sites(
    bundle: Bundle,
    generator: np.random.Generator,
    *,
    n_sites: int = 1500,
    origin_bp: int | None = None,
    terminus_bp: int | None = None,
    edge_bp: int = 128,
) -> pd.DataFrame:
    """Draw labelled sites for each of `TASKS`.

    Parameters
    ----------
    n_sites
        Per task, in equal parts for each label (`frame`, `replichore`: as they fall); where the
        genome has fewer of a label, fewer.
    origin_bp, terminus_bp
        Origin of replication and terminus on the longest contig, 0-based; unless told otherwise
        those of `REPLICATION`. Without them there is no `replichore` task.
    edge_bp
        No site is nearer to an end of its genome block than this.

    Returns
    -------
    `SITE_COLUMNS`, in the order of `TASKS`; `position` is 0-based, `strand` ("+", "-") is the one
    to be read, `block` and `fold` are those that the base lies in. A task is left out where a
    label has no site.

    Raises
    ------
    InputError
        If only one of origin and terminus is given, or they are not two bases of the contig.
    """
    block_of = _block_of_places(bundle, edge_bp)
    found = _Draw(bundle, generator, block_of >= 0).all_tasks(n_sites)
    if origin_bp is None and terminus_bp is None and bundle.genome.contigs:
        longest = max(bundle.genome.contigs, key=lambda contig: contig.length)
        origin_bp, terminus_bp = REPLICATION.get(longest.name, (None, None))
    if origin_bp is not None or terminus_bp is not None:
        sites = np.concatenate([found["coding", "coding"], found["coding", "intergenic"]])
        leading, lagging = _replichores(bundle.genome, sites, origin_bp, terminus_bp)
        found["replichore", "leading"], found["replichore", "lagging"] = leading, lagging
    parts = []
    for task, labels in TASKS.items():
        if all(found.get((task, label), np.empty(0)).size for label in labels):
            parts += [_table(bundle, task, label, found[task, label], block_of) for label in labels]
    empty = pd.DataFrame(columns=list(SITE_COLUMNS))
    return pd.concat(parts, ignore_index=True) if parts else empty


class _Draw:
    """Draws sites of every kind among the bases that are allowed."""

    def __init__(
        self,
        bundle: Bundle,
        generator: np.random.Generator,
        is_allowed: Bool[np.ndarray, " length"],
    ) -> None:
        self.bundle, self.generator, self.is_allowed = bundle, generator, is_allowed
        self.track = annotation_track(bundle.genome, bundle.genes)
        self.masks = region_masks(bundle, self.track)
        self.is_first = first_of_operon(bundle.genome, bundle.genes, bundle.splits).to_numpy()

    def all_tasks(self, n_sites: int) -> dict[tuple[str, str], Sites]:
        """Sites by task and label, without `replichore`."""
        half, quarter = n_sites // 2, n_sites // 4
        sense = self._pick(self._coding(), n_sites + half)
        sense, against = sense[: len(sense) * 2 // 3], sense[len(sense) * 2 // 3 :] ^ 1
        intergenic = self._either(self._pick(np.flatnonzero(self._at("intergenic")), half))
        coding = np.concatenate([sense[:quarter], against[:quarter]])
        first = self.bundle.genes[self.is_first]
        before_first = upstream_mask(self.bundle.genome, first, 1, NO_PROMOTER_BP).any(axis=0)
        elsewhere = np.flatnonzero(self._at("intergenic") & ~before_first)
        elsewhere = self._either(self._pick(elsewhere, quarter))
        promoter = upstream_mask(self.bundle.genome, first, *PROMOTER_BP) & self._at("intergenic")
        genes = {is_first: self._pick(self._starts(is_first), half) for is_first in (True, False)}
        start, other = self._start_codons(np.concatenate(list(genes.values())), half)
        frame = self.track[sense % 2, sense // 2]
        return {
            ("coding", "coding"): coding,
            ("coding", "intergenic"): intergenic,
            ("strand", "sense"): sense[:half],
            ("strand", "antisense"): against[:half],
            **{("frame", str(phase)): sense[frame == phase] for phase in (1, 2, 3)},
            ("start_codon", "start"): start,
            ("start_codon", "other"): other,
            ("promoter", "promoter"): self._pick(_directed(promoter), half),
            ("promoter", "other"): np.concatenate([elsewhere, self._pick(coding, quarter)]),
            ("operon", "first"): genes[True],
            ("operon", "inner"): genes[False],
            ("rna", "rna"): self._rna(half),
            ("rna", "protein"): sense[:half],
        }

    def _at(self, region: str) -> Bool[np.ndarray, " length"]:
        return self.masks[region] & self.is_allowed

    def _pick(self, candidates: Sites, count: int) -> Sites:
        """Up to `count` of them, in random order."""
        return self.generator.permutation(candidates)[:count]

    def _either(self, places: Sites) -> Sites:
        return 2 * places + self.generator.integers(0, 2, len(places))

    def _coding(self) -> Sites:
        """Coding bases, read in sense."""
        places = np.flatnonzero(self._at("coding"))
        return 2 * places + (self.track[0, places] == 0)

    def _starts(self, is_first: bool) -> Sites:
        """First bases of protein genes, read in sense."""
        genes = self.bundle.genes[self.is_first == is_first]
        genes = genes[genes["biotype"] == "protein_coding"]
        contigs = [self.bundle.genome.contig(name) for name in genes["contig"]]
        offset = np.array([contig.offset for contig in contigs], np.int64)
        length = np.array([contig.length for contig in contigs], np.int64)
        places = offset + genes["tss"].to_numpy() % np.maximum(length, 1)
        sites = 2 * places + (genes["strand"] == "-").to_numpy()
        return np.unique(sites[self.is_allowed[places]])

    def _start_codons(self, starts: Sites, half: int) -> tuple[Sites, Sites]:
        """Those of `starts` that begin a frame with a start codon, and as many others."""
        word = _words(self.bundle.genome)
        begins = _directed((self.track == 1) & np.isin(word, START_CODONS) & self.is_allowed)
        anywhere = _directed(np.isin(word, START_CODONS) & self.is_allowed)
        annotated = np.concatenate([self._starts(True), self._starts(False)])
        true = self._pick(starts[np.isin(starts, begins)], half)
        others = []
        inside, anywhere = (np.setdiff1d(sites, annotated) for sites in (begins, anywhere))
        for codon in START_CODONS:
            count = int((word[true % 2, true // 2] == codon).sum())
            internal = inside[word[inside % 2, inside // 2] == codon]
            internal = self._pick(internal, count // 2)
            rest = anywhere[word[anywhere % 2, anywhere // 2] == codon]
            rest = self._pick(np.setdiff1d(rest, internal), count - len(internal))
            others += [internal, rest]
        return true, np.concatenate(others)

    def _rna(self, count: int) -> Sites:
        """Bases of tRNA and rRNA genes, as many of each gene where it is long enough."""
        genes = self.bundle.genes[self.bundle.genes["biotype"].isin(RNA_BIOTYPES)]
        sites = [np.empty(0, np.int64)]
        for gene in genes.itertuples():
            contig = self.bundle.genome.contig(gene.contig)
            places = contig.offset + np.arange(gene.start, gene.end) % contig.length
            places = self._pick(places[self.is_allowed[places]], -(-count // len(genes)))
            sites.append(2 * places + (gene.strand == "-"))
        return self._pick(np.unique(np.concatenate(sites)), count)


def _directed(mask: Bool[np.ndarray, "2 length"]) -> Sites:
    """Sites of a mask whose rows are the strands to read."""
    strand, place = np.nonzero(mask)
    return 2 * place + strand


def _words(genome: Genome) -> UInt8[np.ndarray, "2 length"]:
    """The 3-mer that begins at each base and runs along + or -, as a number of base 4.

    255 for one with N, and for the two of each contig and strand that would run beyond its end.
    """
    words = np.full((2, genome.length), 255, np.uint8)
    for contig in genome.contigs:
        tokens = np.array(genome.tokens[contig.offset : contig.offset + contig.length])
        for strand in (0, 1):
            if strand:
                tokens = np.minimum(3 - tokens[::-1], 4)
            piece = np.lib.stride_tricks.sliding_window_view(tokens, 3)
            code = np.where((piece < 4).all(axis=1), piece @ np.array([16, 4, 1]), 255)
            row = np.full(contig.length, 255)
            row[: len(code)] = code
            words[strand, contig.offset : contig.offset + contig.length] = row[:: 1 - 2 * strand]
    return words


def _replichores(
    genome: Genome, sites: Sites, origin_bp: int | None, terminus_bp: int | None
) -> tuple[Sites, Sites]:
    """Those that read the leading and the lagging strand, of the sites on the longest contig."""
    contig = max(genome.contigs, key=lambda contig: contig.length)
    ends = {end for end in (origin_bp, terminus_bp) if end is not None and 0 <= end < contig.length}
    if origin_bp is None or terminus_bp is None or len(ends) < 2:
        raise InputError(
            f"origin_bp {origin_bp} and terminus_bp {terminus_bp}",
            f"neither, or two positions from 0 to {contig.length - 1} of {contig.name}",
        )
    position = sites // 2 - contig.offset
    sites = sites[(position >= 0) & (position < contig.length)]
    along = (sites // 2 - contig.offset - origin_bp) % contig.length
    is_leading = (along < (terminus_bp - origin_bp) % contig.length) == (sites % 2 == 0)
    return sites[is_leading], sites[~is_leading]


def _block_of_places(bundle: Bundle, edge_bp: int) -> Int64[np.ndarray, " length"]:
    """Block of every base; -1 within `edge_bp` of a block's end."""
    block_of = np.full(bundle.genome.length, -1, np.int64)
    for block in bundle.blocks.itertuples():
        contig = bundle.genome.contig(block.contig)
        place = np.arange(block.start + edge_bp, block.end - edge_bp) % contig.length
        block_of[contig.offset + place] = block.block
    return block_of


def _table(
    bundle: Bundle, task: str, label: str, sites: Sites, block_of: Int64[np.ndarray, " length"]
) -> pd.DataFrame:
    contigs = bundle.genome.contigs
    offsets = np.array([contig.offset for contig in contigs])
    index = np.searchsorted(offsets, sites // 2, side="right") - 1
    block = block_of[sites // 2]
    return pd.DataFrame(
        {
            "task": task,
            "label": label,
            "contig": np.array([contig.name for contig in contigs], dtype=object)[index],
            "position": sites // 2 - offsets[index],
            "strand": np.where(sites % 2 == 0, "+", "-"),
            "block": block,
            "fold": bundle.blocks.set_index("block")["fold"].loc[block].to_numpy(),
        }
    )
