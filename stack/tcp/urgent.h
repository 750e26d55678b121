// Urgent data as BSD and Linux have it: one byte, out of band unless SO_OOBINLINE (RFC 6093, section 3).
#pragma once

#include <cstddef>
#include <cstdint>

#include "stack/base/seqnum.h"

namespace ustack::tcp {

/// The peer's urgent mark in the stream. Lock: the host's.
class UrgentMark {
 public:
  enum class Phase : uint8_t {
    none,
    announced,  ///< the urgent pointer has come, the byte has not
    arrived,    ///< the byte can be read by recv(MSG_OOB)
    taken,      ///< it was read so; the mark still stands in the stream
  };

  Phase phase() const { return phase_; }
  /// There is a mark, and the stream has not been read past it.
  bool marked() const { return phase_ != Phase::none; }
  /// The sequence number of the urgent byte, if marked().
  SeqNum seq() const { return seq_; }
  std::byte byte() const { return byte_; }

  /// A segment has the URG bit: RFC 6093, 3.1: the pointer in use points behind the byte (`end`). `read` is
  /// the sequence number of the next byte of the stream that the program will read. Returns whether a new
  /// mark was set.
  bool announce(SeqNum end, SeqNum read, SeqNum rcv_nxt) {
    SeqNum at = end - 1;
    if (at < read || at < rcv_nxt) return false;
    if (marked() && at <= seq_) return false;
    seq_ = at;
    phase_ = Phase::announced;
    return true;
  }
  /// The byte itself has come.
  void arrive(std::byte byte) {
    byte_ = byte;
    phase_ = Phase::arrived;
  }
  void take() { phase_ = Phase::taken; }
  /// The stream was read up to `read`: past the mark it means nothing any more.
  void on_read(SeqNum read) {
    if (marked() && read > seq_) phase_ = Phase::none;
  }

 private:
  Phase phase_ = Phase::none;
  SeqNum seq_;
  std::byte byte_{};
};

}  // namespace ustack::tcp
