// Clients of the fuzzed service, as far as they listen: what comes to them must be answers that the protocol
// allows, and a witness must get the right tokens whatever the others do.
#pragma once

#include "fuzz.hpp"
#include "playing_device.hpp"
#include "service.hpp"

namespace fuzz {

namespace chat = dlavm::chat;
namespace wire = dlavm::wire;
using host::ConversationId;
using host::Milliseconds;

class Client {
  public:
    explicit Client(ConversationId connection) : id(connection) {}
    virtual ~Client() = default;
    Client(const Client&) = delete;
    Client& operator=(const Client&) = delete;

    const ConversationId id;

    // Bytes that came from the service.
    void hear(std::string_view bytes) {
        heard_ += bytes;
        std::size_t at = 0;
        while (heard_.size() - at >= wire::kHeaderBytes) {
            const wire::Header header = wire::parse_header(&heard_[at]);
            const wire::MessageInfo& info = chat::check_header(header, wire::Side::kServer);
            const std::string_view rest = std::string_view(heard_).substr(at + wire::kHeaderBytes);
            if (rest.size() < header.length) break;
            ++reached()[info.name];
            check(!ended_, std::string("nothing behind the end, got ") + info.name);
            understand(Answers(), header.number, rest.substr(0, header.length));
            at += wire::kHeaderBytes + header.length;
        }
        heard_.erase(0, at);
    }

    virtual void on(const chat::Token&) {
        check(left_ == 0, "a token behind a state");
        ++tokens_;
    }
    virtual void on(const chat::Done& done) {
        ++reached()[std::string("done ") + chat::label(done.reason)];
        check(done.tokens == tokens_, "done: as many tokens as came");
        check(done.kv_len <= model::kContext, "done: a cache no longer than the context");
        tokens_ = 0;
    }
    virtual void on(const chat::ErrorMessage& error) {
        ++reached()[std::string("error ") + chat::label(error.code)];
        check(!error.text.empty() && error.text.find('\n') == std::string::npos, "error: one line");
        ended_ = error.fatal != 0;
        tokens_ = 0;
        left_ = 0;
    }
    void on(const chat::Welcome&) {
        check(!welcomed_, "one welcome");
        welcomed_ = true;
    }
    void on(const chat::State& state) {
        check(left_ == 0, "state: behind all bytes of the one before");
        left_ = state.bytes;
    }
    void on(const chat::Data& data) {
        check(!data.bytes.empty() && data.bytes.size() <= left_, "data: bytes of the state");
        left_ -= data.bytes.size();
    }
    void on(const chat::Farewell&) { ended_ = true; }
    void on(const chat::Progress& progress) {
        check(progress.done <= progress.total, "progress: at most all");
    }
    void on(const chat::Ok&) { check(left_ == 0, "an ok behind a state"); }
    void on(const chat::Statistics&) { check(welcomed_, "statistics for a client that is known"); }
    void on(const chat::Pong&) { check(welcomed_, "a pong for a client that is known"); }

  private:
    using Answers = wire::Types<chat::Welcome, chat::Progress, chat::Token, chat::Done, chat::Ok, chat::State,
                                chat::Data, chat::Statistics, chat::ErrorMessage, chat::Pong, chat::Farewell>;

    template <class... Messages>
    void understand(wire::Types<Messages...>, std::uint16_t number, std::string_view payload) {
        const bool known = ((Messages::kNumber == number && (on(Messages::decode(payload)), true)) || ...);
        check(known, "an answer of a kind that is known");
    }

    std::string heard_;
    bool welcomed_ = false, ended_ = false;
    std::uint32_t tokens_ = 0;  // of the answer
    std::uint64_t left_ = 0;    // bytes of the state
};

// Only asks what is right, reads at once, and knows the tokens that have to come.
class Witness : public Client {
  public:
    using Client::Client;
    using Client::on;

    bool idle() const { return !asking_; }

    // keep, ids and sampler as `number` says; top_k 1 makes every sampler take the likeliest token.
    chat::Generate ask(std::uint16_t number) {
        chat::Generate generate;
        generate.keep = std::min<std::uint32_t>(number & 31, cached());
        const std::uint32_t room = model::kContext - generate.keep;
        if (room == 0) generate.keep = 0;
        generate.ids.resize(std::min<std::uint32_t>(1 + (number >> 5 & 63), model::kContext - generate.keep));
        for (std::uint32_t& id : generate.ids) id = ++last_id_ % model::kVocabulary;
        generate.max_tokens = 1 + (number >> 11);
        generate.ignore_end = 1;
        generate.top_p = 1;
        generate.top_k = 1;
        generate.temperature = (number & 1) != 0 ? 0.7 : 0;
        before_ = history_;
        history_.resize(generate.keep);
        history_.insert(history_.end(), generate.ids.begin(), generate.ids.end());
        asking_ = true;
        return generate;
    }

    void on(const chat::Token& token) override {
        Client::on(token);
        check(token.id == playing::next_token(history_), "the witness's next token");
        history_.push_back(token.id);
        ++reached()["tokens of the witness"];
    }

    // The last token of an answer is not in the cache.
    void on(const chat::Done& done) override {
        Client::on(done);
        check(done.tokens > 0 ? done.kv_len + 1 == history_.size() : done.kv_len <= history_.size(),
              "the witness's cache");
        history_.resize(done.kv_len);
        asking_ = false;
    }

    void on(const chat::ErrorMessage& error) override {
        Client::on(error);
        const bool device = error.code == chat::Error::kDevice;
        check(device || error.code == chat::Error::kBusy || error.code == chat::Error::kTimeout ||
                  error.code == chat::Error::kShutdown,
              "the witness asks nothing wrong: " + error.text);
        history_ = device ? host::Tokens() : before_;
        asking_ = false;
    }

  private:
    std::uint32_t cached() const { return static_cast<std::uint32_t>(history_.size()); }

    host::Tokens history_;  // the cache, and during an answer what it will be
    host::Tokens before_;   // the answer
    std::uint32_t last_id_ = 0;
    bool asking_ = false;
};

}  // namespace fuzz
