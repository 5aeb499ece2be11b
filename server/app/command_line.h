// The command line of this process, for others to see.
#pragma once

#include <string>
#include <vector>

namespace conclave::app {

// With "xxxxx" in the places of passwords.
std::vector<std::string> WithoutSecrets(std::vector<std::string> arguments);

// What the system knows of this process's, without secrets.
std::vector<std::string> ShownCommandLine();

}  // namespace conclave::app
