#include "service.hpp"

#include <algorithm>
#include <utility>

namespace host {

namespace chat = dlavm::chat;
using std::to_string;

namespace {

constexpr Milliseconds kCloseTime = 2000;  // for the last frames, and for the client to close

Refusal late(const std::string& what, Milliseconds limit) {
    return Refusal(chat::Error::kTimeout, what + ": expected within " + to_string(limit) + " ms, got none",
                   true);
}

}  // namespace

Service::Service(const Limits& limits, std::string secret, Milliseconds now)
    : limits_(limits), secret_(std::move(secret)), began_(now), now_(now) {
    for (std::uint32_t place = limits.conversations; place-- > 0;) free_.push_back(place);
}

ConversationId Service::open(Milliseconds now) {
    now_ = now;
    Conversation& conversation = conversations_[++last_id_];
    conversation.id = last_id_;
    conversation.since = now;
    if (statistics_.connections++ >= limits_.connections)
        refuse(conversation,
               Refusal(chat::Error::kBusy,
                       "connections: expected at most " + to_string(limits_.connections) + ", got one more",
                       true, retry(false)));
    return conversation.id;
}

void Service::receive(ConversationId id, std::string_view bytes, Milliseconds now) {
    now_ = now;
    Conversation& conversation = conversations_.at(id);
    if (conversation.closing) return;
    conversation.input.append(bytes);
    serve(conversation);
}

void Service::sent(ConversationId id, std::size_t bytes, Milliseconds now) {
    now_ = now;
    Conversation& conversation = conversations_.at(id);
    conversation.output.sent(bytes, now);
    serve(conversation);  // what waited for room
}

std::string Service::close(ConversationId id, const std::string& reason) {
    Conversation& conversation = conversations_.at(id);
    begin_close(conversation, reason);
    const std::string client = conversation.client.empty() ? "" : conversation.client + ", ";
    const std::string line = conversation.reason + " (" + client + to_string(conversation.requests) +
                             " requests, " + to_string(conversation.tokens) + " tokens)";
    conversations_.erase(id);
    return line;
}

std::optional<Milliseconds> Service::tick(Milliseconds now) {
    now_ = now;
    std::optional<Milliseconds> next;
    for (auto& [id, conversation] : conversations_) {
        Deadline first = deadline(conversation);
        while (first.expire != nullptr && first.at <= now) {
            (this->*first.expire)(conversation);
            first = deadline(conversation);
        }
        if (first.expire != nullptr) next = std::min(next.value_or(first.at), first.at);
    }
    return next;
}

void Service::shutdown(Milliseconds now) {
    now_ = now;
    stopping_ = true;
    for (auto& [id, conversation] : conversations_) {
        if (conversation.closing) continue;
        stop(conversation, chat::StopReason::kShutdown);
        if (std::holds_alternative<Answer>(conversation.request)) continue;  // its turn ends it
        if (!conversation.greeted || !conversation.idle())
            refuse(conversation, Refusal(chat::Error::kShutdown, "the server is going down"));
        leave(conversation, "the server is going down");
    }
}

bool Service::reads(const Conversation& conversation) {
    if (conversation.closing) return true;  // and drops it, so that the client can read what was sent last
    const auto* loading = std::get_if<Loading>(&conversation.request);
    return conversation.output.pending().size() < kUnreadBytes &&
           !(loading && loading->pending.size() >= kPieceBytes);
}

void Service::refuse(Conversation& conversation, const Refusal& refusal) {
    chat::ErrorMessage message;
    message.code = refusal.code;
    message.fatal = refusal.fatal;
    message.retry_ms = static_cast<std::uint32_t>(refusal.retry);
    message.text = dlavm::wire::fit_text(refusal.what());
    send(conversation, message);
    if (refusal.code == chat::Error::kBusy)
        ++statistics_.refused;
    else if (refusal.fatal)
        ++statistics_.dropped;
    if (refusal.fatal)
        begin_close(conversation, std::string(chat::label(refusal.code)) + ": " + refusal.what());
}

void Service::leave(Conversation& conversation, const std::string& reason) {
    chat::Farewell farewell;
    farewell.text = reason;
    send(conversation, farewell);
    begin_close(conversation, reason);
}

void Service::begin_close(Conversation& conversation, const std::string& reason) {
    if (conversation.closing) return;
    --statistics_.connections;
    release(conversation);
    conversation.request = std::monostate();
    conversation.closing = true;
    conversation.since = now_;
    conversation.reason = reason;
}

void Service::end_request(Conversation& conversation) {
    conversation.request = std::monostate();
    conversation.since = now_;
}

// The first of the times that are up for a connection.
Service::Deadline Service::deadline(const Conversation& conversation) const {
    Deadline first;
    const auto consider = [&](Milliseconds since, Milliseconds limit,
                              void (Service::*expire)(Conversation&)) {
        if (limit != 0 && (first.expire == nullptr || since + limit < first.at))
            first = {since + limit, expire};
    };
    if (conversation.abandoned) return first;
    if (conversation.closing) {
        consider(conversation.since, kCloseTime, &Service::expire_close);
        return first;
    }
    const auto* answer = std::get_if<Answer>(&conversation.request);
    const auto* loading = std::get_if<Loading>(&conversation.request);
    const Output& output = conversation.output;
    if (!output.pending().empty()) consider(output.waiting_since(), limits_.stall, &Service::expire_output);
    if (!conversation.greeted) consider(conversation.since, limits_.message, &Service::expire_hello);
    if (conversation.message_since)
        consider(*conversation.message_since, limits_.message, &Service::expire_message);
    if (loading && loading->received < loading->bytes && !wants_turn(conversation) && !conversation.in_flight)
        consider(loading->since, limits_.message, &Service::expire_message);
    if (conversation.greeted && conversation.idle())
        consider(conversation.since, limits_.idle, &Service::expire_idle);
    if (answer && !answer->stop) consider(answer->begin, limits_.answer, &Service::expire_answer);
    return first;
}

void Service::expire_hello(Conversation& conversation) {
    refuse(conversation, late("hello", limits_.message));
}

void Service::expire_message(Conversation& conversation) {
    refuse(conversation, late("message: end", limits_.message));
}

void Service::expire_idle(Conversation& conversation) { refuse(conversation, late("request", limits_.idle)); }

void Service::expire_answer(Conversation& conversation) { stop(conversation, chat::StopReason::kTimeout); }

// It would not read the error either.
void Service::expire_output(Conversation& conversation) {
    ++statistics_.dropped;
    begin_close(conversation, late("output: reader", limits_.stall).what());
    conversation.abandoned = true;
}

void Service::expire_close(Conversation& conversation) { conversation.abandoned = true; }

}  // namespace host
