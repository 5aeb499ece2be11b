// Secret: a text that must not stay in memory longer than needed, nor get into a log line. It
// cannot be copied, printed or joined to a string by accident; its memory is wiped at its end.
#pragma once

#include <string>
#include <string_view>
#include <utility>

namespace conclave::auth {

// Overwrites memory in a way that the compiler does not leave out.
void Wipe(char* at, size_t size);

class Secret {
 public:
  Secret() = default;
  explicit Secret(std::string_view text) : text_(text) {}
  Secret(Secret&& other) noexcept : text_(other.text_) { other.Clear(); }
  Secret& operator=(Secret&& other) noexcept {
    if (this == &other) return *this;
    Clear();
    text_ = other.text_;
    other.Clear();
    return *this;
  }
  ~Secret() { Clear(); }

  // The only way to its text.
  std::string_view Reveal() const { return text_; }
  // Ends with a zero byte.
  const char* RevealText() const { return text_.c_str(); }
  bool empty() const { return text_.empty(); }

 private:
  void Clear() {
    Wipe(text_.data(), text_.size());
    text_.clear();
  }

  std::string text_;
};

}  // namespace conclave::auth
