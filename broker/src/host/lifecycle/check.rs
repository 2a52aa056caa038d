//! Checks declarations without starting anything, and reports all errors at once.

use super::{
    instance::Instance,
    plugins::{Plugins, check_names},
    requirements::{Requirements, missing_plugins},
};
use crate::{config_file::wrong_keys::WrongKeys, declaration::PluginDeclaration, error::BrokerError};

impl Plugins {
    /// Returns all errors in these declarations.
    pub(crate) fn check(&self, declarations: Vec<PluginDeclaration>) -> Vec<BrokerError> {
        let mut errors: Vec<_> = check_names(&declarations).err().into_iter().collect();
        self.prepare_libraries(&declarations.iter().collect::<Vec<_>>());
        let mut requirements = Vec::new();
        for declaration in declarations {
            errors.extend(self.check_one(declaration, &mut requirements));
        }
        self.libraries.forget_prepared();
        errors.extend(missing_plugins(&requirements));
        errors
    }

    /// Checks one declaration. A plugin reports only the first invalid key, so that key is removed and the
    /// plugin is configured again.
    fn check_one(
        &self,
        mut declaration: PluginDeclaration,
        requirements: &mut Vec<Requirements>,
    ) -> Vec<BrokerError> {
        let plugin = declaration.name.clone();
        let mut wrong = WrongKeys::default();
        let mut others = Vec::new();
        let required = loop {
            let instance = Instance::candidate(declaration.clone(), self.context.clone());
            let configured = self.configure_one(&instance);
            let required = instance.requirements();
            instance.discard();
            match configured {
                Ok(()) => break required,
                Err(BrokerError::Configure { error, .. }) => {
                    if !wrong.leave_out(error, &mut declaration.config) {
                        break required;
                    }
                }
                Err(error) => {
                    others.push(error);
                    break required;
                }
            }
        };
        requirements.push(required);
        let configure = |error| BrokerError::Configure { plugin: plugin.clone(), error };
        wrong.errors.into_iter().map(configure).chain(others).collect()
    }
}
