// The messages of the clients.
#include <algorithm>
#include <utility>

#include "files.hpp"
#include "service.hpp"
#include "version.hpp"

namespace host {

namespace chat = dlavm::chat;
namespace wire = dlavm::wire;
using std::to_string;

namespace {

constexpr std::size_t kGreetingBytes = 4096;  // of a payload before the client is known
constexpr std::size_t kShownName = 60;

// Takes as long for every candidate of a length.
bool equal_secrets(const std::string& secret, const std::string& candidate) {
    std::size_t difference = secret.size() ^ candidate.size();
    for (std::size_t i = 0; i < candidate.size(); ++i) {
        const char expected = secret.empty() ? '\0' : secret[i % secret.size()];
        difference |= static_cast<unsigned char>(expected ^ candidate[i]);
    }
    return difference == 0;
}

Refusal wrong_secret(bool expected_none, bool got_none) {
    const std::string expected = expected_none ? "none" : "that of the server";
    const std::string got = got_none ? "none" : expected_none ? "one" : "another one";
    return Refusal(chat::Error::kUnauthorized, "hello: secret: expected " + expected + ", got " + got, true);
}

// A client's text as a log can show it.
std::string printable(const std::string& text) {
    std::string shown = text.substr(0, kShownName);
    for (char& letter : shown)
        if (letter < ' ' || letter > '~') letter = '?';
    return shown;
}

[[noreturn]] void invalid(const std::string& what, const std::string& expected, const std::string& got) {
    throw Refusal(chat::Error::kInvalid, what + ": expected " + expected + ", got " + got);
}

}  // namespace

template <class Message>
void Service::decode(Conversation& conversation, std::string_view payload) {
    handle(conversation, Message::decode(payload));
}

const std::array<Service::Route, 10> Service::kRoutes = {{
    {chat::Hello::kNumber, When::kFirst, &Service::decode<chat::Hello>},
    {chat::Generate::kNumber, When::kIdle, &Service::decode<chat::Generate>},
    {chat::Reset::kNumber, When::kIdle, &Service::decode<chat::Reset>},
    {chat::Save::kNumber, When::kIdle, &Service::decode<chat::Save>},
    {chat::Load::kNumber, When::kIdle, &Service::decode<chat::Load>},
    {chat::Data::kNumber, When::kLoad, &Service::decode<chat::Data>},
    {chat::Cancel::kNumber, When::kAlways, &Service::decode<chat::Cancel>},
    {chat::Stats::kNumber, When::kAlways, &Service::decode<chat::Stats>},
    {chat::Ping::kNumber, When::kAlways, &Service::decode<chat::Ping>},
    {chat::Goodbye::kNumber, When::kAlways, &Service::decode<chat::Goodbye>},
}};

void Service::serve(Conversation& conversation) {
    try {
        while (!conversation.closing && reads(conversation) && serve_one(conversation)) {
        }
    } catch (const Refusal& refusal) {
        refuse(conversation, refusal);
    } catch (const wire::TooLarge& error) {
        refuse(conversation, Refusal(chat::Error::kTooLarge, error.what(), true));
    } catch (const wire::Malformed& error) {
        refuse(conversation, Refusal(chat::Error::kMalformed, error.what(), true));
    }
    const bool waits = !conversation.closing && reads(conversation) && !conversation.input.empty();
    if (!waits)
        conversation.message_since.reset();
    else if (!conversation.message_since)
        conversation.message_since = now_;
}

// Whether there was a message. A refusal that is not fatal is answered here.
bool Service::serve_one(Conversation& conversation) {
    const std::optional<wire::Header> header = conversation.input.header();
    if (!header) return false;
    const Route& route = Service::route(conversation, *header);
    const std::optional<std::string_view> payload = conversation.input.payload(*header);
    if (!payload) return false;
    conversation.message_since.reset();
    if (route.when == When::kIdle) {
        ++conversation.requests;
        conversation.since = now_;
    }
    try {
        (this->*route.handle)(conversation, *payload);
    } catch (const Refusal& refusal) {
        if (refusal.fatal) throw;
        refuse(conversation, refusal);
    }
    conversation.input.pop(*header);
    return true;
}

// Where a message goes, judged before its payload is there.
const Service::Route& Service::route(const Conversation& conversation, const wire::Header& header) {
    const wire::MessageInfo& info = chat::check_header(header, wire::Side::kClient);
    const auto number = [&](const Route& route) { return route.number == header.number; };
    const auto found = std::find_if(kRoutes.begin(), kRoutes.end(), number);
    if (found == kRoutes.end())
        throw Refusal(chat::Error::kUnsupported, std::string(info.name) + ": expected another message", true);
    const Route& route = *found;
    const auto refuse_if = [&](bool condition, const char* expected, const char* got) {
        if (condition)
            throw Refusal(chat::Error::kUnexpected,
                          std::string(info.name) + ": expected " + expected + ", got " + got, true);
    };
    const auto* loading = std::get_if<Loading>(&conversation.request);
    const bool takes_data = loading != nullptr && loading->received < loading->bytes;
    refuse_if(!conversation.greeted && route.when != When::kFirst, "hello before", "none");
    refuse_if(conversation.greeted && route.when == When::kFirst, "one", "another one");
    refuse_if(route.when == When::kIdle && !conversation.idle(), "the answer before to be over",
              "it under way");
    refuse_if(route.when == When::kLoad && !takes_data, "a load that waits for it", "none");
    if (!conversation.greeted && header.length > kGreetingBytes)
        throw wire::TooLarge("hello: expected at most " + to_string(kGreetingBytes) + " bytes, got " +
                             to_string(header.length));
    return route;
}

void Service::handle(Conversation& conversation, const chat::Hello& hello) {
    if (hello.magic != chat::kMagic)
        throw wire::Malformed("hello: magic: expected " + hex(chat::kMagic) + ", got " + hex(hello.magic));
    if (hello.version < 1)
        throw Refusal(chat::Error::kVersion, "hello: version: expected at least 1, got 0", true);
    if (!equal_secrets(secret_, hello.secret)) throw wrong_secret(secret_.empty(), hello.secret.empty());
    chat::Welcome welcome;
    welcome.version = std::min(hello.version, chat::kVersion);
    welcome.server = std::string("dlavm-server ") + kServerVersion;
    welcome.model = model::kName;
    welcome.target = model::kTarget;
    welcome.target_hash = model::kTargetHash;
    welcome.model_id = model::kModelId;
    welcome.tokenizer_id = model::kTokenizerId;
    welcome.vocab_size = model::kVocabulary;
    welcome.context = model::kContext;
    welcome.chunk = model::kChunk;
    welcome.conversations = limits_.conversations;
    welcome.max_tokens = limits_.max_tokens;
    welcome.max_message = chat::kMaxMessage;
    welcome.end_tokens.assign(model::kEndTokens.begin(), model::kEndTokens.end());
    send(conversation, welcome);
    conversation.greeted = true;
    conversation.since = now_;
    conversation.client = printable(hello.client);
}

void Service::handle(Conversation& conversation, chat::Generate&& generate) {
    const std::uint32_t kv_len = conversation.kv_len();
    if (generate.keep > kv_len)
        invalid("generate: keep", "0.." + to_string(kv_len), to_string(generate.keep));
    if (generate.max_tokens < 1) invalid("generate: max_tokens", "at least 1", "0");
    if (generate.ignore_end > 1) invalid("generate: ignore_end", "0 or 1", to_string(generate.ignore_end));
    Answer answer;
    try {
        Model::check_tokens({0, generate.keep}, generate.ids);
        answer.sampler = std::make_unique<Sampler>(generate.temperature, generate.top_k, generate.top_p,
                                                   generate.seed, generate.counter);
    } catch (const std::runtime_error& error) {
        throw Refusal(chat::Error::kInvalid, std::string("generate: ") + error.what());
    }
    if (generate.temperature == 0) answer.sampler.reset();  // the device chooses, where it can
    acquire(conversation);
    conversation.sequence->cached = generate.keep;
    answer.prompt = std::move(generate.ids);
    answer.max_tokens = std::min(generate.max_tokens, limits_.max_tokens);
    answer.ignore_end = generate.ignore_end == 1;
    answer.begin = now_;
    answer.done.counter = generate.counter;
    conversation.request = std::move(answer);
}

void Service::handle(Conversation& conversation, const chat::Cancel&) {
    stop(conversation, chat::StopReason::kCancelled);
}

void Service::handle(Conversation& conversation, const chat::Reset& reset) {
    const std::uint32_t kv_len = conversation.kv_len();
    if (reset.keep > kv_len) invalid("reset: keep", "0.." + to_string(kv_len), to_string(reset.keep));
    if (reset.keep == 0)
        release(conversation);
    else
        conversation.sequence->cached = reset.keep;
    chat::Ok ok;
    ok.kv_len = reset.keep;
    send(conversation, ok);
}

void Service::handle(Conversation& conversation, const chat::Save&) {
    chat::State state;
    state.kv_len = conversation.kv_len();
    state.bytes = Model::state_bytes(state.kv_len);
    send(conversation, state);
    if (state.bytes == 0) return;
    Saving saving;
    saving.bytes = state.bytes;
    conversation.request = saving;
}

// A state that cannot be taken is refused when its data have come: they follow in any case.
void Service::handle(Conversation& conversation, const chat::Load& load) {
    const std::uint64_t largest = Model::state_bytes(model::kContext);
    if (load.bytes > largest)
        throw Refusal(
            chat::Error::kInvalid,
            "load: bytes: expected at most " + to_string(largest) + ", got " + to_string(load.bytes), true);
    Loading loading;
    loading.kv_len = load.kv_len;
    loading.bytes = load.bytes;
    loading.since = now_;
    try {
        begin_load(conversation, load);
    } catch (const Refusal& refusal) {
        loading.refusal = refusal;
    }
    conversation.request = std::move(loading);
    if (load.bytes == 0) end_load(conversation, std::get<Loading>(conversation.request));
}

void Service::handle(Conversation& conversation, const chat::Data& data) {
    auto& loading = std::get<Loading>(conversation.request);
    const std::uint64_t left = loading.bytes - loading.received;
    if (data.bytes.empty() || data.bytes.size() > left)
        throw Refusal(chat::Error::kInvalid,
                      "data: expected 1.." + to_string(left) + " bytes, got " + to_string(data.bytes.size()),
                      true);
    loading.received += data.bytes.size();
    loading.since = now_;
    if (!loading.refusal)
        loading.pending += data.bytes;
    else if (loading.received == loading.bytes)
        end_load(conversation, loading);
}

void Service::handle(Conversation& conversation, const chat::Stats&) {
    chat::Statistics statistics = statistics_;
    statistics.uptime_ms = now_ - began_;
    statistics.conversations = limits_.conversations - static_cast<std::uint32_t>(free_.size());
    statistics.kv_len = conversation.kv_len();
    for (const auto& [id, other] : conversations_)
        statistics.answering += std::holds_alternative<Answer>(other.request);
    send(conversation, statistics);
}

void Service::handle(Conversation& conversation, const chat::Ping& ping) {
    chat::Pong pong;
    pong.nonce = ping.nonce;
    send(conversation, pong);
}

void Service::handle(Conversation& conversation, const chat::Goodbye&) { leave(conversation, "goodbye"); }

}  // namespace host
