// The two directions of a connection as bytes: messages cut out of what came, frames that wait to be sent.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "dlavm/wire.hpp"

namespace host {

// Of a steady clock.
using Milliseconds = std::uint64_t;

// Bytes that came and are not used yet.
class Input {
  public:
    void append(std::string_view bytes) { bytes_.append(bytes); }
    bool empty() const { return begin_ == bytes_.size(); }

    // Of the first message, if its bytes are there. Throws wire::Malformed.
    std::optional<dlavm::wire::Header> header() const;

    // Of the first message, if it is whole. Ends with the next append() or pop().
    std::optional<std::string_view> payload(const dlavm::wire::Header& header) const;

    // Drops the first message.
    void pop(const dlavm::wire::Header& header);

  private:
    std::string bytes_;
    std::size_t begin_ = 0;  // of the first message
};

// Frames on their way to the client.
class Output {
  public:
    void append(std::string frame, Milliseconds now);
    std::string_view pending() const { return std::string_view(bytes_).substr(begin_); }
    void sent(std::size_t bytes, Milliseconds now);

    // Since when what was there then waits: a reader of single bytes does not move it.
    Milliseconds waiting_since() const { return since_; }

  private:
    std::string bytes_;
    std::size_t begin_ = 0;  // of what was not sent
    std::size_t mark_ = 0;   // bytes behind begin_ that were there at since_
    Milliseconds since_ = 0;
};

}  // namespace host
