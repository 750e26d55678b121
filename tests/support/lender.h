// A program's memory that is lent to a stack, for tests of MSG_ZEROCOPY.
#pragma once

#include <cstring>
#include <string>

#include "stack/mem/loan.h"

namespace ustack::test {

/// Reads what kProgram lends as this process's own; what others lend as it is told to.
class TestLender final : public LoanReader {
 public:
  static constexpr uint64_t kProgram = 7, kOther = 8;

  /// What becomes of bytes of kOther.
  Settlement other = Settlement::done;
  /// kProgram is no more this process: it is read as kOther is.
  bool keeper = false;
  mutable uint64_t fetched = 0;

  bool is_mine(const Loan& loan) const override { return loan.lender == kProgram && !keeper; }
  Settlement fetch(const Loan& loan, uintptr_t from, MutableBytes to) const override {
    const Settlement result = is_mine(loan) ? Settlement::done : other;
    if (result != Settlement::done) return result;
    ++fetched;
    std::memcpy(to.data(), reinterpret_cast<const void*>(from), to.size());
    return result;
  }
};

inline Bytes bytes_of(const std::string& text) { return std::as_bytes(std::span(text)); }

}  // namespace ustack::test
