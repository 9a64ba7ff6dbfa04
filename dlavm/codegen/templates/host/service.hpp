// The server of the model without sockets, threads and a clock: bytes of the clients in, bytes for them out,
// and turns for the device. dlavm/chat_protocol.hpp says what the messages mean.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "conversation.hpp"
#include "model.hpp"

namespace host {

// Times: 0 is no limit.
struct Limits {
    std::uint32_t connections = 128;
    std::uint32_t conversations = model::kSequences < 64 ? model::kSequences : 64;  // that have a cache
    std::uint32_t max_tokens = model::kContext;                                     // of an answer
    Milliseconds message = 10'000;  // from the first byte of a message to its last
    Milliseconds stall = 30'000;    // that output waits for its reader
    Milliseconds idle = 600'000;    // from one request to the next
    Milliseconds answer = 0;        // from a generate to its done
};

// One call at a time. A turn is performed between take() and finish(), without the service; meanwhile every
// other method may be called. `now` is the time of the call.
class Service {
  public:
    Service(const Limits& limits, std::string secret, Milliseconds now);

    // A client has come. One too many is told so and closing from the start.
    ConversationId open(Milliseconds now);

    // Bytes have come. More should be read only while reads() holds, so that what is held is bounded.
    void receive(ConversationId id, std::string_view bytes, Milliseconds now);
    bool reads(ConversationId id) const { return reads(conversations_.at(id)); }

    // Bytes to send, until the next call; and how many of them were sent.
    std::string_view output(ConversationId id) const { return conversations_.at(id).output.pending(); }
    void sent(ConversationId id, std::size_t bytes, Milliseconds now);

    // Nothing follows the output of a connection that is closing; that of an abandoned one may be dropped.
    bool closing(ConversationId id) const { return conversations_.at(id).closing; }
    bool abandoned(ConversationId id) const { return conversations_.at(id).abandoned; }

    // The connection is gone, as far as is known for `reason`. A line for the log.
    std::string close(ConversationId id, const std::string& reason);

    // The next work for the device, in turns; none until something else has happened.
    std::optional<Turn> take();
    void finish(Turn turn, Milliseconds now);

    // Ends what took too long. When it is to be called again at the latest.
    std::optional<Milliseconds> tick(Milliseconds now);

    // Ends the answers, each after its turn in flight, and takes leave of everyone. No turns follow.
    void shutdown(Milliseconds now);

    // Neither a connection nor a turn in flight.
    bool empty() const { return conversations_.empty() && turns_in_flight_ == 0; }

  private:
    enum class When { kFirst, kIdle, kLoad, kAlways };
    struct Route {
        std::uint16_t number;
        When when;
        void (Service::*handle)(Conversation&, std::string_view payload);
    };
    struct Deadline {
        Milliseconds at = 0;
        void (Service::*expire)(Conversation&) = nullptr;
    };
    static const std::array<Route, 10> kRoutes;

    // Messages (messages.cpp). What is wrong with one is thrown: Refusal, wire::Malformed.
    void serve(Conversation& conversation);
    bool serve_one(Conversation& conversation);
    static const Route& route(const Conversation& conversation, const dlavm::wire::Header& header);
    template <class Message>
    void decode(Conversation& conversation, std::string_view payload);
    void handle(Conversation& conversation, const dlavm::chat::Hello& hello);
    void handle(Conversation& conversation, dlavm::chat::Generate&& generate);
    void handle(Conversation& conversation, const dlavm::chat::Cancel& cancel);
    void handle(Conversation& conversation, const dlavm::chat::Reset& reset);
    void handle(Conversation& conversation, const dlavm::chat::Save& save);
    void handle(Conversation& conversation, const dlavm::chat::Load& load);
    void handle(Conversation& conversation, const dlavm::chat::Data& data);
    void handle(Conversation& conversation, const dlavm::chat::Stats& stats);
    void handle(Conversation& conversation, const dlavm::chat::Ping& ping);
    void handle(Conversation& conversation, const dlavm::chat::Goodbye& goodbye);

    // Answers and ends (service.cpp).
    static bool reads(const Conversation& conversation);
    template <class Message>
    void send(Conversation& conversation, const Message& message) {
        conversation.output.append(message.frame(), now_);
    }
    void refuse(Conversation& conversation, const Refusal& refusal);
    void leave(Conversation& conversation, const std::string& reason);
    void begin_close(Conversation& conversation, const std::string& reason);
    void end_request(Conversation& conversation);
    Deadline deadline(const Conversation& conversation) const;
    void expire_hello(Conversation& conversation);
    void expire_message(Conversation& conversation);
    void expire_output(Conversation& conversation);
    void expire_idle(Conversation& conversation);
    void expire_answer(Conversation& conversation);
    void expire_close(Conversation& conversation);

    // Caches and turns (turns.cpp).
    void acquire(Conversation& conversation);
    void release(Conversation& conversation);
    Milliseconds retry(bool with_cache) const;
    void begin_load(Conversation& conversation, const dlavm::chat::Load& load);
    void stop(Conversation& conversation, dlavm::chat::StopReason reason);
    void end_answer(Conversation& conversation, Answer& answer);
    void end_load(Conversation& conversation, Loading& loading);
    static bool wants_turn(const Conversation& conversation);
    static Turn next_turn(Conversation& conversation);
    void complete(Conversation& conversation, Turn& turn);
    void complete_step(Conversation& conversation, Answer& answer, Turn& turn);
    void give_token(Conversation& conversation, Answer& answer, Turn& turn);
    void complete_save(Conversation& conversation, Saving& saving, Turn& turn);
    void complete_load(Conversation& conversation, Loading& loading, const Turn& turn);
    void fail(Conversation& conversation, const Turn& turn);

    Limits limits_;
    std::string secret_;
    Milliseconds began_;
    Milliseconds now_;  // of the call
    bool stopping_ = false;
    std::map<ConversationId, Conversation> conversations_;
    ConversationId last_id_ = 0;
    ConversationId last_served_ = 0;
    std::size_t turns_in_flight_ = 0;
    std::vector<std::uint32_t> free_;     // places of caches
    dlavm::chat::Statistics statistics_;  // totals since the start
};

}  // namespace host
