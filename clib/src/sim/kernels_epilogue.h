// The epilogue of LINEAR, written once over the vectors V of an instruction set.
#pragma once

#include "sim/kernels_common.h"

namespace dlavm::sim {

namespace {

// act(x) of the table: a segment is two floats.
template <class V>
inline typename V::F activations(const Segment* table, typename V::F x) {
    static_assert(sizeof(Segment) == 2 * sizeof(float));
    const typename V::I half = V::half_words(x), segment = V::template right32<5>(half);
    const typename V::I at = V::add32(segment, segment);
    const typename V::F fraction = V::to_float(V::both(half, V::all32(31)));
    const typename V::F base = V::gathered(&table->base, at), slope = V::gathered(&table->slope, at);
    return V::saturated(V::add(base, V::saturated(V::mul(slope, fraction))));
}

template <class V>
void epilogue_vectors(const Epilogue& e, float* y, uint16_t* out, size_t n) {
    size_t i = 0;
    for (; i + V::kRows <= n; i += V::kRows) {
        typename V::F x = V::load_floats(y + i);
        if (e.scale != nullptr) x = V::saturated(V::mul(x, V::all(*e.scale)));
        if (e.row_scale != nullptr) x = V::saturated(V::mul(x, V::all(*e.row_scale)));
        if (e.bias != nullptr) x = V::saturated(V::add(x, V::halves(e.bias + i)));
        if (e.act != nullptr) x = activations<V>(e.act, x);
        if (e.aux != nullptr) {
            const typename V::F aux = V::halves(e.aux + i);
            x = V::saturated(e.aux_multiplies ? V::mul(x, aux) : V::add(x, aux));
        }
        V::store_halves(out + i, x);
    }
    if (i == n) return;
    Epilogue rest = e;
    if (e.bias != nullptr) rest.bias += i;
    if (e.aux != nullptr) rest.aux += i;
    epilogue_plain(rest, y + i, out + i, n - i);
}

}  // namespace

}  // namespace dlavm::sim
