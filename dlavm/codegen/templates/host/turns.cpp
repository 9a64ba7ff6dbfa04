// Caches, and the turns that work on them.
#include <algorithm>
#include <utility>

#include "service.hpp"

namespace host {

namespace chat = dlavm::chat;
namespace wire = dlavm::wire;
using chat::StopReason;
using std::to_string;

namespace {

constexpr Milliseconds kLeastRetry = 500, kMostRetry = 10'000;

bool is_end(std::uint32_t token) {
    return std::find(model::kEndTokens.begin(), model::kEndTokens.end(), token) != model::kEndTokens.end();
}

// Why an answer ends with the token that it gave last.
std::optional<StopReason> natural_end(const Answer& answer, const Sequence& sequence) {
    if (is_end(answer.last_token) && !answer.ignore_end) return StopReason::kEos;
    if (answer.done.tokens >= answer.max_tokens) return StopReason::kLength;
    if (Model::room(sequence) == 0) return StopReason::kContext;
    return std::nullopt;
}

chat::Progress progress(const Answer& answer) {
    chat::Progress progress;
    progress.done = static_cast<std::uint32_t>(answer.fed);
    progress.total = static_cast<std::uint32_t>(answer.prompt.size());
    return progress;
}

void fill(Turn& turn, Answer& answer) {
    const std::size_t left = answer.prompt.size() - answer.fed;
    turn.choose = left <= model::kChunk;
    if (turn.choose) turn.sampler = std::move(answer.sampler);
    if (left == 0) {
        turn.tokens = {answer.last_token};
    } else {
        const auto begin = answer.prompt.cbegin() + static_cast<std::ptrdiff_t>(answer.fed);
        const auto count = static_cast<std::ptrdiff_t>(std::min<std::size_t>(left, model::kChunk));
        turn.tokens.assign(begin, begin + count);
    }
}

void fill(Turn& turn, const Saving& saving) {
    turn.kind = Turn::Kind::kSave;
    turn.offset = saving.offset;
    const std::uint64_t count = std::min<std::uint64_t>(saving.bytes - saving.offset, kPieceBytes);
    wire::Writer writer(turn.bytes, chat::Data::kNumber);
    turn.bytes.resize(wire::kHeaderBytes + static_cast<std::size_t>(count));
    writer.finish(chat::kMaxMessage);
}

// Whole fp16 numbers, wherever the messages were cut.
void fill(Turn& turn, Loading& loading) {
    turn.kind = Turn::Kind::kLoad;
    turn.sequence.cached = loading.kv_len;
    turn.offset = loading.written;
    const std::size_t count = std::min(loading.pending.size() & ~std::size_t{1}, kPieceBytes);
    if (count == loading.pending.size()) {
        turn.bytes = std::exchange(loading.pending, std::string());
    } else {
        turn.bytes = loading.pending.substr(0, count);
        loading.pending.erase(0, count);
    }
}

}  // namespace

void Service::acquire(Conversation& conversation) {
    if (conversation.sequence) return;
    if (free_.empty())
        throw Refusal(chat::Error::kBusy,
                      "conversations: expected one of " + to_string(limits_.conversations) +
                          " caches to be free, got none",
                      false, retry(true));
    conversation.sequence = Sequence{free_.back(), 0};
    free_.pop_back();
}

// The device may still write to the place: then the turn gives it back.
void Service::release(Conversation& conversation) {
    if (conversation.sequence && !conversation.in_flight) free_.push_back(conversation.sequence->place);
    conversation.sequence.reset();
}

// When the first of the idle connections will be closed, unless it speaks: that much is known.
Milliseconds Service::retry(bool with_cache) const {
    Milliseconds wait = kMostRetry;
    for (const auto& [id, other] : conversations_) {
        if (other.closing || !other.idle() || (with_cache && !other.sequence) || limits_.idle == 0) continue;
        const Milliseconds end = other.since + limits_.idle;
        wait = std::min(wait, end > now_ ? end - now_ : 0);
    }
    return std::max(wait, kLeastRetry);
}

void Service::begin_load(Conversation& conversation, const chat::Load& load) {
    const auto invalid = [](const char* what, const std::string& expected, const std::string& got) {
        return Refusal(chat::Error::kInvalid,
                       std::string("load: ") + what + ": expected " + expected + ", got " + got);
    };
    if (load.model_id != model::kModelId)
        throw invalid("model_id", "a state of this model", "one of another model");
    if (load.kv_len > model::kContext)
        throw invalid("kv_len", "at most " + to_string(model::kContext), to_string(load.kv_len));
    const std::uint64_t bytes = Model::state_bytes(load.kv_len);
    if (load.bytes != bytes) throw invalid("bytes", to_string(bytes), to_string(load.bytes));
    acquire(conversation);
    conversation.sequence->cached = 0;
}

// Ends an answer after the turn in flight, or at once.
void Service::stop(Conversation& conversation, StopReason reason) {
    auto* answer = std::get_if<Answer>(&conversation.request);
    if (answer == nullptr) return;
    if (!answer->stop) answer->stop = reason;
    if (!conversation.in_flight) end_answer(conversation, *answer);
}

void Service::end_answer(Conversation& conversation, Answer& answer) {
    answer.done.reason = *answer.stop;
    answer.done.kv_len = conversation.kv_len();
    if (answer.sampler) answer.done.counter = answer.sampler->counter();
    send(conversation, answer.done);
    end_request(conversation);
}

void Service::end_load(Conversation& conversation, Loading& loading) {
    const std::optional<Refusal> refusal = std::move(loading.refusal);
    const std::uint32_t kv_len = loading.kv_len;
    end_request(conversation);
    if (refusal) return refuse(conversation, *refusal);
    conversation.sequence->cached = kv_len;
    chat::Ok ok;
    ok.kv_len = kv_len;
    send(conversation, ok);
}

std::optional<Turn> Service::take() {
    if (stopping_) return std::nullopt;
    auto next = conversations_.upper_bound(last_served_);
    for (std::size_t left = conversations_.size(); left > 0; --left, ++next) {
        if (next == conversations_.end()) next = conversations_.begin();
        Conversation& conversation = next->second;
        if (!wants_turn(conversation)) continue;
        last_served_ = conversation.id;
        ++turns_in_flight_;
        Turn turn = next_turn(conversation);
        conversation.in_flight = true;
        return turn;
    }
    return std::nullopt;
}

bool Service::wants_turn(const Conversation& conversation) {
    if (conversation.in_flight || conversation.idle()) return false;
    if (const auto* loading = std::get_if<Loading>(&conversation.request))
        return loading->pending.size() >= sizeof(std::uint16_t);
    return conversation.output.pending().size() < kUnreadBytes;
}

Turn Service::next_turn(Conversation& conversation) {
    Turn turn;
    turn.conversation = conversation.id;
    turn.sequence = *conversation.sequence;
    if (auto* answer = std::get_if<Answer>(&conversation.request)) fill(turn, *answer);
    if (const auto* saving = std::get_if<Saving>(&conversation.request)) fill(turn, *saving);
    if (auto* loading = std::get_if<Loading>(&conversation.request)) fill(turn, *loading);
    return turn;
}

void Service::finish(Turn turn, Milliseconds now) {
    now_ = now;
    --turns_in_flight_;
    statistics_.device_us += turn.microseconds;
    const auto found = conversations_.find(turn.conversation);
    if (found != conversations_.end()) found->second.in_flight = false;
    if (found == conversations_.end() || found->second.closing) {
        free_.push_back(turn.sequence.place);
        return;
    }
    Conversation& conversation = found->second;
    if (turn.error.empty())
        complete(conversation, turn);
    else
        fail(conversation, turn);
    if (stopping_)
        leave(conversation, "the server is going down");
    else
        serve(conversation);  // what waited for this turn
}

void Service::complete(Conversation& conversation, Turn& turn) {
    if (auto* answer = std::get_if<Answer>(&conversation.request))
        complete_step(conversation, *answer, turn);
    else if (auto* saving = std::get_if<Saving>(&conversation.request))
        complete_save(conversation, *saving, turn);
    else
        complete_load(conversation, std::get<Loading>(conversation.request), turn);
}

void Service::complete_step(Conversation& conversation, Answer& answer, Turn& turn) {
    chat::Done& done = answer.done;
    conversation.sequence->cached = turn.sequence.cached;
    done.cycles += turn.counters.cycles;
    if (answer.fed < answer.prompt.size()) {
        const auto count = static_cast<std::uint32_t>(turn.tokens.size());
        answer.fed += count;
        done.prompt_tokens += count;
        done.prefill_us += turn.microseconds;
        statistics_.tokens_in += count;
        if (answer.prompt.size() > model::kChunk) send(conversation, progress(answer));
    } else {
        done.decode_us += turn.microseconds;
        done.bytes_read += turn.counters.bytes_read;
    }
    if (turn.choose) give_token(conversation, answer, turn);
    if (answer.stop) end_answer(conversation, answer);
}

void Service::give_token(Conversation& conversation, Answer& answer, Turn& turn) {
    answer.sampler = std::move(turn.sampler);
    answer.last_token = turn.token;
    ++answer.done.tokens;
    ++conversation.tokens;
    ++statistics_.tokens_out;
    chat::Token token;
    token.id = turn.token;
    send(conversation, token);
    if (const auto end = natural_end(answer, *conversation.sequence)) answer.stop = end;
}

void Service::complete_save(Conversation& conversation, Saving& saving, Turn& turn) {
    saving.offset += turn.bytes.size() - wire::kHeaderBytes;
    conversation.output.append(std::move(turn.bytes), now_);
    if (saving.offset == saving.bytes) end_request(conversation);
}

void Service::complete_load(Conversation& conversation, Loading& loading, const Turn& turn) {
    loading.written += turn.bytes.size();
    loading.since = now_;
    if (loading.written == loading.bytes) end_load(conversation, loading);
}

// The cache may hold anything now. The data of a load that are still to come are waited for, unless the
// connection ends: as the cache is lost, nothing less says that `invalid`.
void Service::fail(Conversation& conversation, const Turn& turn) {
    if (turn.refused)
        return refuse(conversation, Refusal(chat::Error::kInvalid, "load: " + turn.error, true));
    const Refusal refusal(chat::Error::kDevice, turn.error);
    release(conversation);
    auto* loading = std::get_if<Loading>(&conversation.request);
    if (loading == nullptr) {
        end_request(conversation);
        refuse(conversation, refusal);
        return;
    }
    loading->refusal = refusal;
    loading->pending = std::string();
    loading->since = now_;
    if (loading->received == loading->bytes) end_load(conversation, *loading);
}

}  // namespace host
