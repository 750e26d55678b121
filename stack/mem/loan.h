// Bytes that a program has lent instead of having them copied (MSG_ZEROCOPY): they stay in the memory of one
// process, and a block that stands for them is filled only when somebody else needs them.
#pragma once

#include <cstddef>
#include <cstdint>

#include "stack/base/bytes.h"

namespace ustack {

/// Where the bytes [begin, end) of a block are until it is settled. Lies at the end of the block.
struct Loan {
  /// The byte at offset n of the block is at origin + n in the lender's memory.
  uintptr_t origin = 0;
  /// Which process that is (LoanReader); never 0.
  uint64_t lender = 0;
  uint32_t begin = 0, end = 0;
};

/// What a loan came to when its bytes were asked for.
enum class Settlement : uint8_t {
  done,   ///< The bytes are in the block.
  later,  ///< They can't be had here and now; the lender still has them.
  gone,   ///< The lender is dead or has unmapped them: they can't be had any more.
};

/// Reads what was lent. One object for all processes of a host, which have it at the same address. Any thread
/// of any of them, with or without the host's lock.
class LoanReader {
 public:
  /// This process is the lender: it may read them where they are.
  virtual bool is_mine(const Loan& loan) const = 0;
  /// Copies bytes at `from`, an address in the lender's memory. Never faults.
  virtual Settlement fetch(const Loan& loan, uintptr_t from, MutableBytes to) const = 0;

 protected:
  ~LoanReader() = default;
};

}  // namespace ustack
