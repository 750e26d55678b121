// Errors are values: a Result<T> is a T or an errno, a Status is success or an errno.
#pragma once

#include <cerrno>
#include <cstdlib>
#include <utility>

namespace ustack {

/// An errno value (errno(3)) as a type of its own, so that it can't be mistaken for a count.
struct Error {
  int code;
  friend constexpr bool operator==(Error, Error) = default;
};

/// Success, or an errno.
class [[nodiscard]] Status {
 public:
  constexpr Status() = default;
  constexpr Status(Error error) : code_(error.code) {}  // NOLINT: implicit on purpose

  constexpr bool ok() const { return code_ == 0; }
  /// The errno, 0 if ok().
  constexpr int code() const { return code_; }
  constexpr Error error() const { return Error{code_}; }
  friend constexpr bool operator==(Status, Status) = default;

 private:
  int code_ = 0;
};

/// A T, or an errno. T must be movable and default-constructible (all of ours are small).
template <typename T>
class [[nodiscard]] Result {
 public:
  constexpr Result(T value) : value_(std::move(value)) {}  // NOLINT: implicit on purpose
  constexpr Result(Error error) : code_(error.code) {}     // NOLINT: implicit on purpose

  constexpr bool ok() const { return code_ == 0; }
  constexpr int code() const { return code_; }
  constexpr Error error() const { return Error{code_}; }
  constexpr Status status() const { return code_ == 0 ? Status() : Status(Error{code_}); }

  constexpr T& operator*() { return value_; }
  constexpr const T& operator*() const { return value_; }
  constexpr T* operator->() { return &value_; }
  constexpr const T* operator->() const { return &value_; }

 private:
  T value_{};
  int code_ = 0;
};

}  // namespace ustack
