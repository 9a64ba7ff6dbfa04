#include "connection.hpp"

#include <algorithm>
#include <utility>

namespace host {

namespace {

// Behind a large message its memory is given back, so that a connection that waits holds little.
constexpr std::size_t kKeptCapacity = 4096;

// Drops what lies before `begin`: at once where nothing is left, else when it is the larger part, so that
// every byte moves once on average.
void drop_front(std::string& bytes, std::size_t& begin) {
    if (begin == bytes.size() && bytes.capacity() > kKeptCapacity) {
        bytes = std::string();
    } else if (begin == bytes.size()) {
        bytes.clear();
    } else if (begin > bytes.size() / 2) {
        bytes.erase(0, begin);
    } else {
        return;
    }
    begin = 0;
}

}  // namespace

std::optional<dlavm::wire::Header> Input::header() const {
    if (bytes_.size() - begin_ < dlavm::wire::kHeaderBytes) return std::nullopt;
    return dlavm::wire::parse_header(&bytes_[begin_]);
}

std::optional<std::string_view> Input::payload(const dlavm::wire::Header& header) const {
    const std::string_view rest = std::string_view(bytes_).substr(begin_ + dlavm::wire::kHeaderBytes);
    if (rest.size() < header.length) return std::nullopt;
    return rest.substr(0, header.length);
}

void Input::pop(const dlavm::wire::Header& header) {
    begin_ += dlavm::wire::kHeaderBytes + header.length;
    drop_front(bytes_, begin_);
}

void Output::append(std::string frame, Milliseconds now) {
    const bool idle = bytes_.empty();
    if (idle) {
        bytes_ = std::move(frame);
        mark_ = bytes_.size();
        since_ = now;
    } else {
        bytes_ += frame;
    }
}

void Output::sent(std::size_t bytes, Milliseconds now) {
    begin_ += bytes;
    mark_ -= std::min(mark_, bytes);
    drop_front(bytes_, begin_);
    if (mark_ > 0) return;
    mark_ = pending().size();
    since_ = now;
}

}  // namespace host
