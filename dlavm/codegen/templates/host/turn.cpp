#include "turn.hpp"

#include <chrono>
#include <exception>

#include "dlavm/wire.hpp"

namespace host {

namespace {

void run_step(Model& model, Turn& turn) {
    model.step(turn.sequence, turn.tokens, turn.choose ? 1 : 0);
    turn.counters = model.counters();
    if (!turn.choose) return;
    if (turn.sampler) {
        const std::vector<std::uint16_t> logits = model.half_logits();
        turn.token = turn.sampler->sample(logits.data(), logits.size());
    } else {
        turn.token = model.greedy_next();
    }
}

void run(Model& model, Turn& turn) {
    constexpr std::size_t kHeader = dlavm::wire::kHeaderBytes;
    switch (turn.kind) {
        case Turn::Kind::kStep:
            return run_step(model, turn);
        case Turn::Kind::kSave:
            return model.read_state(turn.sequence, turn.offset, &turn.bytes[kHeader],
                                    turn.bytes.size() - kHeader);
        case Turn::Kind::kLoad:
            return model.write_state(turn.sequence, turn.offset, turn.bytes.data(), turn.bytes.size());
    }
}

}  // namespace

void perform(Model& model, Turn& turn) noexcept {
    using Clock = std::chrono::steady_clock;
    const Clock::time_point begin = Clock::now();
    try {
        run(model, turn);
    } catch (const BadState& error) {
        turn.error = error.what();
        turn.refused = true;
    } catch (const std::exception& error) {
        turn.error = error.what();
    }
    const auto elapsed = Clock::now() - begin;
    turn.microseconds =
        static_cast<std::uint64_t>(std::chrono::duration_cast<std::chrono::microseconds>(elapsed).count());
}

}  // namespace host
