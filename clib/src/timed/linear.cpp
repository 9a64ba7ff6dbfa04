#include "timed/linear.h"

#include "dlavm_formats.h"

namespace dlavm::timed {

namespace {

using isa::WeightFormat;

uint32_t divide_up(uint64_t a, uint64_t b) { return static_cast<uint32_t>((a + b - 1) / b); }

Element element_of(formats::Codes codes) {
    switch (codes) {
        case formats::Codes::kInt4:
            return Element::kInt4;
        case formats::Codes::kInt8:
            return Element::kInt8;
        case formats::Codes::kE2m1:
            return Element::kE2m1;
        case formats::Codes::kE2m3:
            return Element::kE2m3;
        default:
            return Element::kE4m3;
    }
}

uint32_t tile_beats(const LinearJob& job) {
    uint32_t beats = 16 * job.k_blocks;
    if (job.element == Element::kInt4 || job.element == Element::kE2m1) beats = 8 * job.k_blocks;
    if (job.element == Element::kE2m3) beats = 12 * job.k_blocks;
    const uint32_t groups = divide_up(job.k_blocks, job.group_blocks);
    beats += job.e8m0 ? divide_up(groups, 2) : groups;
    return beats + (job.zero ? divide_up(groups, 2) : 0);
}

}  // namespace

LinearJob linear_job(const Command& command, const Shape& shape) {
    LinearJob job;
    job.c = decoded<isa::Linear>(command);
    const WeightFormat format = job.c.format;
    job.keys = format == WeightFormat::kKvK || format == WeightFormat::kKvqK;
    job.values = format == WeightFormat::kKvV || format == WeightFormat::kKvqV;
    job.bytes = format == WeightFormat::kKvqK || format == WeightFormat::kKvqV;
    for (const formats::Format& f : formats::kFormats) {
        if (f.number != format) continue;
        job.element = element_of(f.codes);
        job.group_blocks = f.group / 32;
        job.e8m0 = f.e8m0;
        job.zero = f.zeros;
    }
    job.narrow = job.element == Element::kInt4 || job.element == Element::kE2m1;
    job.short_slots = job.narrow || job.element == Element::kE2m3;
    job.rows = job.c.rows_o * job.c.rows_i;
    job.k_blocks = divide_up(job.c.k, 32);
    job.n_blocks = divide_up(job.c.n, 32);
    job.tiles = divide_up(job.c.n, shape.tile());
    const uint64_t elements = uint64_t{job.rows} * job.k_blocks * 32, most = shape.activation_elements;
    job.pieces = job.values && 2 * elements > most;
    while (job.places != 8 && 2 * job.places * elements <= most) job.places *= 2;
    if (job.pieces) job.places = 2;
    // Each head has whole beats of dst.
    const uint32_t most_heads = std::min(4u, shape.sets() / std::max(1u, shape.units / 4));
    for (uint32_t heads = 2; job.values && !job.pieces && heads <= std::min(most_heads, job.places);
         heads *= 2)
        if (job.n_blocks <= shape.sets() / heads && job.rows * heads <= shape.rows_most) job.heads = heads;
    job.ordered =
        shape.sets() > 1 && !job.bytes && ((job.keys && job.k_blocks <= kTogether) || job.heads != 1);
    job.tile_units = tile_beats(job) * (shape.row_units * shape.halves / 2);
    return job;
}

}  // namespace dlavm::timed
