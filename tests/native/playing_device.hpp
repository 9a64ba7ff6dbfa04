// A device that plays a model behind the C interface: the next token is a hash of the tokens in a cache, and
// nothing is computed. It stands in for libdlavm where a generated driver is linked.
#pragma once

#include "driver.hpp"

namespace playing {

// What follows these tokens.
std::uint32_t next_token(const host::Tokens& cached);

// Status of the next step or transfer of a cache, then none again.
extern int failure;

// Forgets all tokens.
void reset();

}  // namespace playing
